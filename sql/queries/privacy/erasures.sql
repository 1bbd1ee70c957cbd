-- Every erasure, by customer.
-- scan ok: all of them, at a start or a restore
select customer_id, created_at_ms, erased_at_ms, again_at_ms, licenses
from erased_customers order by customer_id, created_at_ms;
