-- Every release; versions are ordered by the program, which compares them as numbers.
-- scan ok: all of them are wanted, a shop has some hundred
select version, channel, notes, download_url, sha256, state, released_at_ms from releases limit 10000;
