-- Whether the administrator of a name has logged in from a browser. Served by the primary key.
-- :token_hash blob (SHA-256), :name text
select count(*)
from known_browsers k join admins a on a.admin_id = k.admin_id
where k.token_hash = :token_hash and a.name = :name;
