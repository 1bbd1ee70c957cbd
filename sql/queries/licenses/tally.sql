-- How many licenses match each filter, and how many of their device slots are taken. Triggers counted them, by the hour of
-- their end; only those that end in the hours of :now_ms and :soon_ms are looked at, by license_valid_until, and those that
-- begin later, by license_future.
-- :product_id integer (null: any), :now_ms, :soon_ms integer (Unix ms)
-- scan ok: of what was counted: a row for each product, and for each hour in which licenses of it end
with counted as (
    select coalesce(sum(licenses), 0) as every, coalesce(sum(slots), 0) as slots, coalesce(sum(taken), 0) as taken
    from license_counts
    where :product_id is null or product_id = :product_id
), ends as (
    select coalesce(sum(licenses), 0) as in_use,
           coalesce(sum(unused), 0) as unused,
           coalesce(sum(licenses) filter (where hour < :now_ms / 3600000), 0) as expired,
           coalesce(sum(unused) filter (where hour < :now_ms / 3600000), 0) as unused_expired,
           coalesce(sum(bought) filter (where hour > :now_ms / 3600000 and hour < :soon_ms / 3600000), 0) as expiring
    from term_counts
    where :product_id is null or product_id = :product_id
), this_hour as (
    select count(*) as expired, coalesce(sum(taken = 0), 0) as unused_expired
    from licenses indexed by license_valid_until
    where valid_until_ms >= :now_ms / 3600000 * 3600000 and valid_until_ms < :now_ms
      and state = 'active' and (:product_id is null or product_id = :product_id)
), edges as (
    select count(customer_id) as expiring
    from licenses indexed by license_valid_until
    where (valid_until_ms between :now_ms and :now_ms / 3600000 * 3600000 + 3599999
           or valid_until_ms between :soon_ms / 3600000 * 3600000 and :soon_ms)
      and state = 'active' and (:product_id is null or product_id = :product_id)
), future as (
    select count(*) as licenses
    from licenses indexed by license_future
    where valid_from_ms > :now_ms and valid_from_ms > created_at_ms
      and state = 'active' and coalesce(valid_until_ms >= :now_ms, 1)
      and (:product_id is null or product_id = :product_id)
)
select c.every, c.slots, c.taken,
       max(0, e.in_use - e.expired - h.expired - f.licenses) as active,
       e.expiring + g.expiring as expiring,
       max(0, e.unused - e.unused_expired - h.unused_expired) as unused,
       max(0, c.every - e.in_use) as stopped,
       e.expired + h.expired as expired
from counted c, ends e, this_hour h, edges g, future f;
