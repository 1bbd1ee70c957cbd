-- How many licenses match each filter, and how many of their device slots are taken.
-- :product_id, :customer_id integer (null: any), :now_ms, :soon_ms integer (Unix ms)
-- A trial that nobody bought does not count as expiring: there is no customer to write to.
-- scan ok: all licenses are counted, once per page of the list; those of one product by license_product
select count(*) as every,
       coalesce(sum(usable and l.valid_from_ms <= :now_ms), 0) as active,
       coalesce(sum(l.state = 'active' and l.customer_id is not null
                    and coalesce(l.valid_until_ms between :now_ms and :soon_ms, 0)), 0) as expiring,
       coalesce(sum(usable and taken = 0), 0) as unused,
       coalesce(sum(l.state <> 'active'), 0) as stopped,
       coalesce(sum(l.state = 'active' and not usable), 0) as expired,
       coalesce(sum(taken), 0) as taken,
       coalesce(sum(l.device_limit), 0) as slots
from (select license_id, customer_id, state, device_limit, valid_from_ms, valid_until_ms,
             state = 'active' and coalesce(valid_until_ms >= :now_ms, 1) as usable,
             (select count(*) from devices d where d.license_id = license_details.license_id) as taken
      from license_details
      where product_id in (select product_id from products where :product_id is null or product_id = :product_id)) l
where (:customer_id is null or l.customer_id = :customer_id);
