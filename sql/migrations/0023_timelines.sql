-- Which servers wrote the database, one after the other: each row begins with a `promote`. A copy that lacks rows of another
-- one, but has changes from after the first of them, comes from a server that was replaced.
create table timelines (
    timeline     integer primary key,
    identity     blob not null unique check (length(identity) = 16), -- random
    began_at_ms  integer not null,
    continues_ms integer not null  -- the latest date in the copy with which it began
) strict;
