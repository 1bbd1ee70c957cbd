-- Customers that follow a position in the order of a column: at most twice as many as :limit, among them those that come
-- next. Served by the index of the column.
-- :column text (a word of customers::CustomerColumn), :from_value text, :from_number integer (the value of the position, by
-- column), :from_id integer, :limit integer
select customer_id from (
    select c.customer_id
    from customers c indexed by customer_name
    where :column = 'name'
      and c.sort_name = :from_value
      and c.customer_id > :from_id
      and (c.erased_at_ms is null or c.licenses > 0)
    order by c.customer_id asc
    limit :limit)
union all
select customer_id from (
    select c.customer_id
    from customers c indexed by customer_name
    where :column = 'name'
      and c.sort_name > :from_value
      and (c.erased_at_ms is null or c.licenses > 0)
    order by c.sort_name asc, c.customer_id asc
    limit :limit)
union all
select customer_id from (
    select c.customer_id
    from customers c indexed by customer_company
    where :column = 'company'
      and c.sort_company = :from_value
      and c.customer_id > :from_id
      and (c.erased_at_ms is null or c.licenses > 0)
    order by c.customer_id asc
    limit :limit)
union all
select customer_id from (
    select c.customer_id
    from customers c indexed by customer_company
    where :column = 'company'
      and c.sort_company > :from_value
      and (c.erased_at_ms is null or c.licenses > 0)
    order by c.sort_company asc, c.customer_id asc
    limit :limit)
union all
select customer_id from (
    select c.customer_id
    from customers c indexed by customer_email
    where :column = 'email'
      and c.sort_email = :from_value
      and c.customer_id > :from_id
      and (c.erased_at_ms is null or c.licenses > 0)
    order by c.customer_id asc
    limit :limit)
union all
select customer_id from (
    select c.customer_id
    from customers c indexed by customer_email
    where :column = 'email'
      and c.sort_email > :from_value
      and (c.erased_at_ms is null or c.licenses > 0)
    order by c.sort_email asc, c.customer_id asc
    limit :limit)
union all
select customer_id from (
    select c.customer_id
    from customers c indexed by customer_licenses
    where :column = 'licenses'
      and c.licenses = :from_number
      and c.customer_id > :from_id
      and (c.erased_at_ms is null or c.licenses > 0)
    order by c.customer_id asc
    limit :limit)
union all
select customer_id from (
    select c.customer_id
    from customers c indexed by customer_licenses
    where :column = 'licenses'
      and c.licenses > :from_number
      and (c.erased_at_ms is null or c.licenses > 0)
    order by c.licenses asc, c.customer_id asc
    limit :limit);
