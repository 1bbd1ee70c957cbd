-- Adds a customer.
-- :name, :email, :company, :note text, :now_ms integer (Unix ms)
insert into customers (name, email, company, note, created_at_ms)
values (:name, :email, :company, :note, :now_ms);
