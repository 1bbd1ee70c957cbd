-- Whether the schema has the table: databases of earlier versions have none.
-- scan ok: a row for each object of the schema
select exists (select 1 from sqlite_schema where type = 'table' and name = 'timelines');
