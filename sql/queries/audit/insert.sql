-- Adds an entry to the audit log.
-- :audit_id integer, :at_ms integer (Unix ms), :actor, :source, :action, :subject, :before, :after text, :hash blob
insert into audit_log (audit_id, at_ms, actor, source, action, subject, before, after, hash)
values (:audit_id, :at_ms, :actor, :source, :action, :subject, :before, :after, :hash);
