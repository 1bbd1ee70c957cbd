-- How often programs were refused on one day, by code, most frequent first. Served by the primary key.
-- :day integer (days since 1970-01-01, UTC)
select code, refused from daily_refusals where day = :day order by refused desc, code;
