-- Customers of this name, as searches compare names; ten are enough to say that it is not one. First who is
-- called exactly so.
-- :name text, :folded text
-- scan ok: a name is folded to be compared, and a shop has some thousand customers
select customer_id, name from customers
where folded(name) = :folded
order by name <> :name, customer_id
limit 10;
