-- The lock in the database, part 7: grants, triggers in place, what was there before brought into line, and
-- a last look before the transaction ends.

-- No temporary tables for the application: they are found before the real ones, and a pooled connection
-- would keep them.
DO $$
BEGIN
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC, mastodon', current_database());
    EXECUTE format('GRANT CONNECT, CREATE, TEMPORARY ON DATABASE %I TO mastodon_owner', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO mastodon', current_database());
END $$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC, mastodon;
GRANT USAGE, CREATE ON SCHEMA public TO mastodon_owner;
GRANT USAGE ON SCHEMA public TO mastodon;
REVOKE TRUNCATE, TRIGGER, REFERENCES, MAINTAIN ON ALL TABLES IN SCHEMA public FROM PUBLIC, mastodon;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO mastodon;
GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO mastodon;
ALTER DEFAULT PRIVILEGES FOR ROLE mastodon_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO mastodon;
ALTER DEFAULT PRIVILEGES FOR ROLE mastodon_owner IN SCHEMA public
    GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO mastodon;
DO $$
DECLARE
    bookkeeping text;
BEGIN
    FOREACH bookkeeping IN ARRAY ARRAY['public.schema_migrations', 'public.ar_internal_metadata'] LOOP
        IF to_regclass(bookkeeping) IS NOT NULL THEN
            EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON %s FROM mastodon', bookkeeping);
        END IF;
    END LOOP;
END $$;

REVOKE ALL ON SCHEMA gov FROM PUBLIC, mastodon, mastodon_owner;
REVOKE ALL ON ALL TABLES IN SCHEMA gov FROM PUBLIC, mastodon, mastodon_owner;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA gov FROM PUBLIC, mastodon, mastodon_owner;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA gov FROM PUBLIC, mastodon, mastodon_owner;
GRANT USAGE ON SCHEMA gov TO mastodon_owner;
GRANT EXECUTE ON FUNCTION gov.invite(jsonb), gov.revoke(jsonb), gov.invitations(), gov.mailed(jsonb), gov.status(),
    gov.shut(jsonb), gov.hand_back(jsonb), gov.lockdowns(), gov.users_invited(text[]) TO mastodon_owner;

DO $$
DECLARE
    e record;
BEGIN
    FOR e IN SELECT t.* FROM gov.expected_triggers() t JOIN gov.guarded() g ON g.name = t.target LOOP
        IF e.definition NOT LIKE 'CREATE CONSTRAINT%' THEN
            EXECUTE replace(e.definition, 'CREATE TRIGGER', 'CREATE OR REPLACE TRIGGER');
        ELSIF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = format('public.%I', e.target)::regclass
                             AND tgname = e.name AND pg_get_triggerdef(oid) = e.definition) THEN
            EXECUTE format('DROP TRIGGER IF EXISTS %I ON public.%I', e.name, e.target);  -- these know no OR REPLACE
            EXECUTE e.definition;
        END IF;
        EXECUTE format('ALTER TABLE public.%I ENABLE ALWAYS TRIGGER %I', e.target, e.name);
    END LOOP;
    IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'gov_lock' AND evtevent = 'ddl_command_end'
                      AND evtfoid = 'gov.guard_ddl'::regproc) THEN
        DROP EVENT TRIGGER IF EXISTS gov_lock;
        CREATE EVENT TRIGGER gov_lock ON ddl_command_end EXECUTE FUNCTION gov.guard_ddl();
    END IF;
    ALTER EVENT TRIGGER gov_lock ENABLE ALWAYS;
END $$;

-- psql variable source: the hash of these files (roles/mastodon/lock.py).
INSERT INTO gov.version (version, source, digest)
SELECT 2, :'source', gov.digest()
 WHERE (2, :'source'::text, gov.digest()) IS DISTINCT FROM
       (SELECT (version, source, digest) FROM gov.version ORDER BY id DESC LIMIT 1);

DO $$
DECLARE
    broken text;
BEGIN
    -- Before postgres writes to these tables: nothing of another role may run when it does.
    SELECT string_agg(format('%s is "%s", expected "%s"', id, observed, expected), '; ') INTO broken
      FROM gov.structure() WHERE observed IS DISTINCT FROM expected;
    IF broken IS NOT NULL THEN
        RAISE 'The database lock cannot be installed, because something else stands in its way: %. Remove it '
              'as postgres, then deploy again.', broken;
    END IF;
    UPDATE public.user_roles SET id = id WHERE id = -99 AND permissions <> 0 OR permissions & 2097152 <> 0;
    UPDATE public.invites i SET max_uses = 1
     WHERE (expires_at IS NULL OR expires_at > now() AT TIME ZONE 'UTC')
       AND NOT EXISTS (SELECT FROM gov.invitation WHERE invite_id = i.id);
    DELETE FROM public.settings WHERE var = 'registrations_mode' AND NOT gov.is_closed(value);
    PERFORM gov.follow_up();
END $$;
