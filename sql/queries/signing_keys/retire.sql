-- Retires a key: nothing is signed with it any more.
-- :public_key blob, :now_ms integer (Unix ms)
update signing_keys set role = 'previous', retired_at_ms = :now_ms where public_key = :public_key;
