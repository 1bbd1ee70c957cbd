-- Customers with this name, compared like searches do. Ten are enough to see that the name is ambiguous. Exact matches
-- come first. Served by the index customer_texts, which finds candidates.
-- :match text (expression for the index), :name, :indexed text
select c.customer_id, c.name
from customer_texts f cross join customers c on c.customer_id = f.rowid
where f.customer_texts match :match and f.name = :indexed
order by c.name <> :name, c.customer_id
limit 10;
