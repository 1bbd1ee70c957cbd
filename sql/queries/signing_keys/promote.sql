-- Makes a key the current one, which signs responses.
-- :public_key blob
update signing_keys set role = 'current' where public_key = :public_key;
