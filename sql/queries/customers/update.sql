-- Changes a customer's data. Served by the primary key.
-- :customer_id integer, :name text, :email text, :company text, :note text
update customers set name = :name, email = :email, company = :company, note = :note
where customer_id = :customer_id;
