-- Of the browsers of an administrator only the latest stay. Served by the index known_browser_admin.
-- :admin_id integer, :kept integer
delete from known_browsers
where admin_id = :admin_id
  and token_hash in (select k.token_hash from known_browsers k where k.admin_id = :admin_id
                     order by k.seen_at_ms desc limit -1 offset :kept);
