-- Roles, database and extensions. Runs as postgres through psql; every statement is safe to repeat.
\set ON_ERROR_STOP on
SELECT 'CREATE ROLE mastodon_owner LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mastodon_owner') \gexec
SELECT 'CREATE ROLE mastodon LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mastodon') \gexec
ALTER ROLE mastodon_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD NULL;
ALTER ROLE mastodon LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD NULL;
SELECT 'CREATE DATABASE mastodon_production OWNER mastodon_owner ENCODING ''UTF8'' TEMPLATE template0'
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'mastodon_production') \gexec
\connect mastodon_production
-- While it is empty it is ours to take; from here on its tables are ours, also when a deploy dies before the lock.
SELECT 'COMMENT ON DATABASE mastodon_production IS ''made by mastodon-gov'''
 WHERE NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')) \gexec
REVOKE ALL ON DATABASE mastodon_production FROM PUBLIC;
GRANT CONNECT ON DATABASE mastodon_production TO mastodon;
ALTER SCHEMA public OWNER TO mastodon_owner;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO mastodon;
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
