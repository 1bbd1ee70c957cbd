-- Removes all timelines, before others take their place.
delete from timelines;
