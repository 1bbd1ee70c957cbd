-- Deletes the log entries up to an id, the oldest ones, so that the log stays bounded. Served by the primary key.
-- :handshake_id integer: the newest entry to delete
delete from handshakes where handshake_id <= :handshake_id;
