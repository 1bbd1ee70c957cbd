-- Deletes all but the most recently used browsers of an administrator. Served by the index known_browser_admin.
-- :admin_id integer, :keep integer
delete from known_browsers
where admin_id = :admin_id
  and token_hash in (select k.token_hash from known_browsers k where k.admin_id = :admin_id
                     order by k.seen_at_ms desc limit -1 offset :keep);
