-- Adds an administrator.
-- :name text, :role text, :password_hash text (PHC form), :now_ms integer (Unix ms)
insert into admins (name, role, password_hash, created_at_ms, password_set_at_ms)
values (:name, :role, :password_hash, :now_ms, :now_ms);
