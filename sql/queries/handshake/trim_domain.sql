-- Keeps the latest handshakes of one domain: a busy one must not push out all others. By handshake_domain.
-- :domain text, :keep integer
delete from handshakes where handshake_id <= (
    select handshake_id from handshakes where domain = :domain order by handshake_id desc limit 1 offset :keep
) and domain = :domain;
