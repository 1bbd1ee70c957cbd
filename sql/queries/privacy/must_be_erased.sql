-- Whether a customer is there and not erased. By the primary key; the time tells a later customer with the same id.
-- :customer_id integer, :created_at_ms integer (Unix ms)
select exists (select 1 from customers
               where customer_id = :customer_id and created_at_ms = :created_at_ms and erased_at_ms is null);
