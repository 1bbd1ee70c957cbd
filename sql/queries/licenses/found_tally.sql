-- How many of the licenses that a search found match each filter, and how many of their device slots are taken.
-- :found text (their ids as a JSON array), :product_id, :customer_id integer (null: any), :now_ms, :soon_ms integer (Unix ms)
-- A trial that nobody bought does not count as expiring: there is no customer to write to.
select count(*) as every,
       coalesce(sum(usable and l.valid_from_ms <= :now_ms), 0) as active,
       coalesce(sum(l.state = 'active' and l.customer_id is not null
                    and coalesce(l.valid_until_ms between :now_ms and :soon_ms, 0)), 0) as expiring,
       coalesce(sum(usable and l.taken = 0), 0) as unused,
       coalesce(sum(l.state <> 'active'), 0) as stopped,
       coalesce(sum(l.state = 'active' and not usable), 0) as expired,
       coalesce(sum(l.taken), 0) as taken,
       coalesce(sum(l.device_limit), 0) as slots
from (select customer_id, state, device_limit, taken, valid_from_ms, valid_until_ms,
             state = 'active' and coalesce(valid_until_ms >= :now_ms, 1) as usable
      from licenses
      where license_id in (select value from json_each(:found))
        and (:product_id is null or product_id = :product_id)) l
where :customer_id is null or l.customer_id = :customer_id;
