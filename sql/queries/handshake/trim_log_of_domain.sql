-- Deletes all but the latest :keep log entries of one domain, so that a busy domain does not push out the others.
-- Served by handshake_domain.
-- :domain text, :keep integer
delete from handshakes where handshake_id <= (
    select handshake_id from handshakes where domain = :domain order by handshake_id desc limit 1 offset :keep
) and domain = :domain;
