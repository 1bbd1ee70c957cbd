-- Plain names: an entry of the audit log has an action, an answer that is kept for a repeated request an operation.

-- `<module>.<verb>`, such as `licenses.issue`.
alter table audit_log rename column deed to action;
-- `activate` or `start`.
alter table idempotent_answers rename column deed to operation;
