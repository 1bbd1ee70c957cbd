-- Every customer of exactly this name; ten are enough to say that it is not one.
-- :name text
-- scan ok: only commands ask, and a shop has some thousand customers
select customer_id from customers where name = :name collate nocase order by customer_id limit 10;
