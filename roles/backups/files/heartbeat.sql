-- A sign of life for the RPO: a row a minute, kept for a day, with the place in the WAL it was written at.
-- In database postgres: an export of Mastodon does not carry it.
\set ON_ERROR_STOP on
select 'create schema mfg' where to_regnamespace('mfg') is null \gexec
select 'create table mfg.heartbeat (at timestamptz primary key, lsn pg_lsn not null)'
 where to_regclass('mfg.heartbeat') is null \gexec
insert into mfg.heartbeat values (clock_timestamp(), pg_current_wal_insert_lsn());
delete from mfg.heartbeat where at < now() - interval '1 day';
