-- The lock in the database, part 1: preconditions, schema, register and ledger.
-- The parts run in the order of their names, as postgres, in one transaction, on the database that holds
-- Mastodon's tables (docs/decisions/lock-in-database.md). Every part may run any number of times.

SET LOCAL client_min_messages = warning;
-- Functions call functions of later parts; the last part calls them all.
SET LOCAL check_function_bodies = off;
SET LOCAL lock_timeout = '15s';
-- postgres works on tables that another role owns: nothing of theirs may be found by an unqualified name.
SET LOCAL search_path = pg_catalog, pg_temp;

DO $$
DECLARE
    missing text;
    found int;
BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) THEN
        RAISE 'The database lock must be installed by postgres, not by %.', session_user;
    END IF;
    SELECT string_agg(r, ' and ') INTO missing FROM unnest(ARRAY['mastodon', 'mastodon_owner']) r
     WHERE to_regrole(r) IS NULL;
    IF missing IS NOT NULL THEN
        RAISE 'The database role % does not exist: deploy the postgresql role first.', missing;
    END IF;
    SELECT string_agg(t, ', ') INTO missing FROM unnest(ARRAY['users', 'invites', 'user_roles', 'settings']) t
     WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('public.' || t)
                          AND pg_get_userbyid(relowner) = 'mastodon_owner');
    IF missing IS NOT NULL THEN
        RAISE 'Table % is missing in schema public or does not belong to mastodon_owner: run the migrations '
              'as mastodon_owner before the lock is installed.', missing;
    END IF;
    IF EXISTS (SELECT FROM pg_namespace JOIN pg_roles r ON r.oid = nspowner
                WHERE nspname = 'gov' AND NOT rolsuper) THEN
        RAISE 'Schema gov already exists and does not belong to postgres: somebody else made it; look at '
              'what it holds, then drop it.';
    END IF;
    IF to_regclass('gov.version') IS NOT NULL THEN
        EXECUTE 'SELECT max(version) FROM gov.version' INTO found;
        IF found > 2 THEN
            RAISE 'The database lock is version %, newer than this product knows (2): use the newer product.',
                found;
        END IF;
    END IF;
END $$;

-- Nobody may change what the lock stands on while it is being built.
LOCK TABLE public.users, public.invites, public.user_roles, public.settings IN SHARE ROW EXCLUSIVE MODE;

CREATE SCHEMA IF NOT EXISTS gov;

-- One row for each installation; the newest counts. `source` is the hash of these files, `digest` that of
-- the functions as PostgreSQL held them when the installation ended.
CREATE TABLE IF NOT EXISTS gov.version (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version int NOT NULL,
    source text NOT NULL,
    digest text NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT now()
);

-- The register: an address passes if its domain is exactly one of these.
CREATE TABLE IF NOT EXISTS gov.staff_domain (
    domain text PRIMARY KEY CHECK (domain ~ '^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]*[a-z0-9])?$'),
    added_at timestamptz NOT NULL DEFAULT now()
);

-- The organisations of organisations.yaml and the domains of each. `requested` ones have no domains here yet;
-- `leaving` ones keep their accounts and get no new ones.
CREATE TABLE IF NOT EXISTS gov.organisation (
    id text PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('requested', 'approved', 'live', 'leaving'))
);
ALTER TABLE gov.staff_domain ADD COLUMN IF NOT EXISTS organisation text REFERENCES gov.organisation;

-- require_2fa: 'true' keeps the second factor obligatory in every role. inviter: user name of the local
-- account in whose name invitations are made; without it, the first account with the administrator bit.
CREATE TABLE IF NOT EXISTS gov.setting (
    name text PRIMARY KEY CHECK (name IN ('require_2fa', 'inviter')),
    value text NOT NULL,
    CHECK (name <> 'require_2fa' OR value IN ('true', 'false'))
);

-- Names of the first deployment: every address of every post contains them, so they can never change.
CREATE TABLE IF NOT EXISTS gov.deployment (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    local_domain text NOT NULL,
    web_domain text NOT NULL,
    first_at timestamptz NOT NULL DEFAULT now()
);

-- The ledger: who invited whom, for which organisation, why; and what became of it.
CREATE TABLE IF NOT EXISTS gov.invitation (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    address text NOT NULL CHECK (address = lower(address COLLATE "C")),
    organisation text NOT NULL,
    role_id bigint,
    invited_by text NOT NULL,
    why text NOT NULL,
    invite_id bigint NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    user_id bigint,
    revoked_at timestamptz,
    revoked_by text,
    CHECK (expires_at <= created_at + interval '72 hours')
);
CREATE UNIQUE INDEX IF NOT EXISTS invitation_open ON gov.invitation (address)
    WHERE used_at IS NULL AND revoked_at IS NULL;

-- When the invitation was handed to the mail relay; NULL while nobody has mailed it.
ALTER TABLE gov.invitation ADD COLUMN IF NOT EXISTS mailed_at timestamptz;

-- Accounts that were shut by a verb or by the sweep, and what `handback` must restore. While a row is open, the
-- application cannot let the account in again (gov_users_locked).
CREATE TABLE IF NOT EXISTS gov.lockdown (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL,
    username text NOT NULL,
    verb text NOT NULL,
    locked_by text NOT NULL,
    why text NOT NULL,
    locked_at timestamptz NOT NULL DEFAULT now(),
    role_id bigint,
    evidence text NOT NULL,
    lifted_at timestamptz,
    lifted_by text
);
CREATE UNIQUE INDEX IF NOT EXISTS lockdown_open ON gov.lockdown (user_id) WHERE lifted_at IS NULL;
ALTER TABLE gov.lockdown DROP CONSTRAINT IF EXISTS lockdown_verb_check;
ALTER TABLE gov.lockdown ADD CONSTRAINT lockdown_verb_check
    CHECK (verb IN ('offboard', 'lockdown', 'handover', 'sweep'));
-- Whose the account is since: the address that `handback` or `handover` gave it. NULL: the same person's as before.
ALTER TABLE gov.lockdown ADD COLUMN IF NOT EXISTS handed_to text;
