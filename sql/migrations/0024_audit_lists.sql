-- The filters of the audit log. Programs' starts, heartbeats and ends have no entries, so nothing here slows them.

create index audit_log_actor on audit_log (actor, audit_id);
-- The module is what stands before the dot of the action.
create index audit_log_module on audit_log (substr(action, 1, instr(action, '.') - 1), audit_id);
