-- Forgets whose forms carry which CSRF tokens, for an administrator with a new password. Served by the index form_token_admin.
-- :admin_id integer
delete from form_tokens where admin_id = :admin_id;
