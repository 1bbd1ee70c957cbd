-- The orders of running sessions are written like those of the other lists.
update saved_filters
set query = replace(replace(replace(replace(query,
        'order=newest', 'order=-started'),
        'order=oldest', 'order=started'),
        'order=latest-heartbeat', 'order=-last_heartbeat'),
        'order=earliest-heartbeat', 'order=last_heartbeat')
where list = 'sessions';
