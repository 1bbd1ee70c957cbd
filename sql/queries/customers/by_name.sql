-- Customers with this name, compared like searches do. Ten are enough to see that the name is ambiguous. Exact matches
-- come first.
-- :name text, :folded text
-- scan ok: names are folded for the comparison, and a shop has a few thousand customers
select customer_id, name from customers
where folded(name) = :folded
order by name <> :name, customer_id
limit 10;
