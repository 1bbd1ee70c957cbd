-- What pages of a large shop show without reading all of it.

-- How many licenses each product has: every page says it.
create table license_counts (
    product_id integer primary key,
    licenses   integer not null
) strict;
insert into license_counts (product_id, licenses) select product_id, count(*) from licenses group by product_id;
create trigger license_added after insert on licenses
begin
    insert into license_counts (product_id, licenses) values (new.product_id, 1)
    on conflict do update set licenses = licenses + 1;
end;
create trigger license_removed after delete on licenses
begin
    update license_counts set licenses = licenses - 1 where product_id = old.product_id;
end;
create trigger license_regrouped after update of product_id on licenses when new.product_id <> old.product_id
begin
    update license_counts set licenses = licenses - 1 where product_id = old.product_id;
    insert into license_counts (product_id, licenses) values (new.product_id, 1)
    on conflict do update set licenses = licenses + 1;
end;

-- Lists of sessions with one end reason, such as the few that an administrator ended, are read in the order of their ends. New
-- rows come last in this index; those of the former one, by license, lay everywhere.
drop index session_history_reason;
create index session_history_reason on session_history (end_reason, ended_at_ms);
