-- Sets the state of a license, and with it when it was revoked.
-- :license_id integer, :state text, :now_ms integer (Unix ms)
update licenses set state = :state, revoked_at_ms = iif(:state = 'revoked', :now_ms, null) where license_id = :license_id;
