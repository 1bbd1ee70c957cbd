-- Adds to the count of refusals with one code on one day.
-- :day integer (days since 1970-01-01, UTC), :code text, :refused integer (above 0)
insert into daily_refusals (day, code, refused) values (:day, :code, :refused)
on conflict (day, code) do update set refused = refused + excluded.refused;
