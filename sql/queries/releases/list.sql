-- All releases. The program sorts them, since it compares versions numerically.
-- scan ok: all rows are needed; a shop has a few hundred
select version, channel, notes, download_url, sha256, state, released_at_ms from releases limit 10000;
