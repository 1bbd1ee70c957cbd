-- How many sessions have not ended and match a search; see sessions/page_newest. No more than :limit are counted.
-- :product_id integer (null: any), :search text (empty: all), :key_part text (:search as part of a license key: upper
-- case, no hyphens), :limit integer
-- scan ok: a search for part of a text reads all rows; a shop has a few thousand running sessions
select count(*) from (
    select 1
    from active_sessions s
    join licenses l on l.license_id = s.license_id
    left join customers c on c.customer_id = l.customer_id
    join devices d on d.device_id = s.device_id
    where (:product_id is null or l.product_id = :product_id)
      and (:search = ''
           or (:key_part <> '' and instr(l.license_key, :key_part) > 0)
           or instr(folded(coalesce(c.name || ' ' || c.company, '') || ' ' || d.machine_id || ' ' || d.hardware_id || ' ' || s.address),
                    folded(:search)) > 0)
    limit :limit);
