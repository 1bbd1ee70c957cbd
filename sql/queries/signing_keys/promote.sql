-- Answers are signed with this one from now on.
-- :public_key blob
update signing_keys set role = 'current' where public_key = :public_key;
