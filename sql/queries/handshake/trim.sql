-- Makes room: the number of handshakes that are kept is bounded. By the primary key.
-- :handshake_id integer: the youngest that goes
delete from handshakes where handshake_id <= :handshake_id;
