-- How many sessions started and ended in each quarter of an hour since a moment, and the most at once after a start.
-- :product_id integer (0: all products together), :since_ms integer (Unix ms)
select at_ms, started, ended, peak from session_counts
where product_id = :product_id and at_ms >= :since_ms
order by at_ms;
