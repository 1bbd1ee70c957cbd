-- Deletes all but the latest :keep known sources of a domain. Served by the primary key.
-- :domain text, :keep integer
delete from known_sources
where domain = :domain and source not in
    (select source from known_sources where domain = :domain order by completed_at_ms desc, source limit :keep);
