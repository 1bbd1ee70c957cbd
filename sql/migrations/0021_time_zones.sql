-- The time zone in which an administrator sees times; null: the shop's.
alter table admins add column time_zone text check (length(time_zone) between 1 and 100); -- a name of the IANA database
