-- The lock in the database, part 3: the triggers. A clamp where Mastodon's migrations must pass; an error
-- with a sentence where a person must learn that it is not allowed.
-- Checks are AFTER triggers: they see the row as it was stored, whatever else has touched it on the way.
-- All run as postgres (SECURITY DEFINER) because nobody else may read schema gov; session_user is still the
-- role that signed in.

CREATE OR REPLACE FUNCTION gov.is_operator() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT session_user = 'mastodon_owner' OR (SELECT rolsuper FROM pg_roles WHERE rolname = session_user)
$$;

CREATE OR REPLACE FUNCTION gov.setting_of(wanted text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT value FROM gov.setting WHERE name = wanted
$$;

-- Plain ASCII addresses only: no quotes, no routing characters, no look-alike letters, no trailing dot.
-- A sub-domain, or an international name in its xn-- form, passes only if it is in the register itself.
CREATE OR REPLACE FUNCTION gov.is_staff(address text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT length(address) <= 254
       AND lower(address COLLATE "C") ~ '^[a-z0-9_&''+-]+(\.[a-z0-9_&''+-]+)*@[a-z0-9.-]+$'
       AND EXISTS (SELECT FROM gov.staff_domain WHERE domain = split_part(lower(address COLLATE "C"), '@', 2))
$$;

-- Settings are YAML text; nothing (null) does not count as closed, because Mastodon compares with 'none'.
CREATE OR REPLACE FUNCTION gov.is_closed(mode text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(btrim(mode, E' \n') IN ('--- none', '--- ''none''', '--- "none"'), false)
$$;

-- The organisation that owns the domain of an address.
CREATE OR REPLACE FUNCTION gov.organisation_of(address text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT organisation FROM gov.staff_domain WHERE domain = split_part(lower(address COLLATE "C"), '@', 2)
$$;

CREATE OR REPLACE FUNCTION gov.users_arrival() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF gov.is_operator() THEN
        RETURN NEW;
    END IF;
    -- A second person approves, whatever the inviter's role may do.
    NEW.approved := false;
    NEW.role_id := (SELECT r.id FROM gov.invitation i JOIN public.user_roles r ON r.id = i.role_id
                     WHERE i.invite_id = NEW.invite_id AND i.address = lower(NEW.email COLLATE "C"));
    NEW.unconfirmed_email := NULL;
    NEW.confirmed_at := NULL;  -- only the link in a mail shows that the mailbox is theirs
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION gov.users_check() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chosen text[];
BEGIN
    IF (TG_OP = 'INSERT' OR NEW.email IS DISTINCT FROM OLD.email) AND gov.is_staff(NEW.email) IS NOT TRUE THEN
        RAISE 'This address is not in the staff register: its domain "%" is not one of the registered staff '
              'domains.', split_part(NEW.email, '@', 2) USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.unconfirmed_email <> '' AND (TG_OP = 'INSERT' OR NEW.unconfirmed_email IS DISTINCT FROM OLD.unconfirmed_email)
       AND gov.is_staff(NEW.unconfirmed_email) IS NOT TRUE THEN
        RAISE 'This address is not in the staff register: its domain "%" is not one of the registered staff '
              'domains.', split_part(NEW.unconfirmed_email, '@', 2) USING ERRCODE = 'check_violation';
    END IF;
    IF gov.is_operator() THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        -- Addresses that were not there yet. A pending one that was there came from the operator, or passed here before.
        chosen := ARRAY(SELECT a FROM unnest(ARRAY[NEW.email, NEW.unconfirmed_email]) a
                         WHERE a <> '' AND a NOT IN (OLD.email, coalesce(OLD.unconfirmed_email, OLD.email)));
        -- A password once set is never emptied: without one, any password would lead to the second factor
        -- (reference/identity-and-records.md §0.1).
        IF NEW.invite_id IS NOT NULL AND NEW.invite_id IS DISTINCT FROM OLD.invite_id THEN
            RAISE 'An account cannot be moved to another invitation.' USING ERRCODE = 'check_violation';
        ELSIF coalesce(NEW.encrypted_password, '') = '' AND OLD.encrypted_password <> '' THEN
            RAISE 'The password of an account cannot be emptied.' USING ERRCODE = 'check_violation';
        ELSIF OLD.approved AND NOT NEW.approved OR OLD.confirmed_at IS NOT NULL AND NEW.confirmed_at IS NULL THEN
            RAISE 'An official account cannot be made a pending one again.' USING ERRCODE = 'check_violation';
        ELSIF (NEW.id, NEW.account_id) IS DISTINCT FROM (OLD.id, OLD.account_id) THEN
            RAISE 'A user keeps its number and its account.' USING ERRCODE = 'check_violation';
        -- /auth/setup lets whoever signed up give another address before the first one was ever confirmed: a forwarded
        -- link would do for a colleague.
        ELSIF chosen <> '{}' AND NOT (OLD.approved AND OLD.confirmed_at IS NOT NULL) THEN
            RAISE 'Until it is confirmed and approved, an account keeps the address of its invitation.'
                USING ERRCODE = 'check_violation';
        ELSIF EXISTS (SELECT FROM unnest(chosen) a
                       WHERE gov.organisation_of(a) IS DISTINCT FROM gov.organisation_of(OLD.email)) THEN
            RAISE 'An account keeps to the addresses of its organisation. Ask the operator of this server for another '
                  'one.' USING ERRCODE = 'check_violation';
        END IF;
        RETURN NULL;
    END IF;
    IF coalesce(NEW.encrypted_password, '') = '' THEN
        RAISE 'No account is prepared for this identity: an operator must make it first.'
            USING ERRCODE = 'check_violation';
    ELSIF EXISTS (SELECT FROM public.users WHERE account_id = NEW.account_id AND id <> NEW.id) THEN
        RAISE 'This account has its user already.' USING ERRCODE = 'check_violation';
    END IF;
    -- The row lock lets one sign-up through; the second waits here and then finds the invitation used.
    UPDATE gov.invitation SET used_at = clock_timestamp(), user_id = NEW.id
     WHERE invite_id = NEW.invite_id AND address = lower(NEW.email COLLATE "C")
       AND used_at IS NULL AND revoked_at IS NULL AND expires_at > clock_timestamp()
       -- As it is now: an organisation may have begun to leave after it invited.
       AND EXISTS (SELECT FROM gov.organisation WHERE id = gov.organisation_of(NEW.email)
                      AND state IN ('approved', 'live'));
    IF NOT FOUND THEN
        RAISE 'This address has no open invitation under this link: ask your organisation''s coordinator for one.'
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;

-- An account that was shut stays shut, whatever its password page, a mail to its address or a moderator's button does.
CREATE OR REPLACE FUNCTION gov.users_locked() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT gov.is_operator() AND EXISTS (SELECT FROM gov.lockdown WHERE user_id = OLD.id AND lifted_at IS NULL) THEN
        NEW.disabled := true;
        NEW.email := OLD.email;
        NEW.encrypted_password := OLD.encrypted_password;
        NEW.role_id := OLD.role_id;
        NEW.unconfirmed_email := NULL;
        NEW.reset_password_token := NULL;
    END IF;
    RETURN NEW;
END $$;

-- One use, at most 72 hours; a link that is not in the ledger is born expired.
CREATE OR REPLACE FUNCTION gov.invites_clamp() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    last timestamp := coalesce((SELECT expires_at FROM gov.invitation WHERE invite_id = NEW.id AND revoked_at IS NULL),
                               clock_timestamp()) AT TIME ZONE 'UTC';
BEGIN
    NEW.max_uses := 1;
    NEW.expires_at := least(NEW.expires_at, last);
    RETURN NEW;
END $$;

-- Everyone (-99) may do nothing; nobody may let an invited account skip approval.
CREATE OR REPLACE FUNCTION gov.roles_clamp() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.permissions := CASE WHEN NEW.id = -99 THEN 0 ELSE NEW.permissions & ~2097152::bigint END;
    IF gov.setting_of('require_2fa') = 'true' AND to_jsonb(NEW) ? 'require_2fa' THEN
        NEW := jsonb_populate_record(NEW, '{"require_2fa": true}');  -- 4.5 has no such column
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION gov.settings_check() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.var = 'registrations_mode' AND NOT gov.is_closed(NEW.value) THEN
        RAISE 'Registration is locked by the instance definition: this server is for staff, and accounts are '
              'made by invitation.' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION gov.no_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) THEN
        RAISE 'Table % is under the database lock and cannot be emptied.', TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;

-- Asked after every DDL statement of everybody but a superuser. A migration passes; whatever leaves the
-- lock weaker is refused, however it was written.
CREATE OR REPLACE FUNCTION gov.guard_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    broken text;
    doing text;
BEGIN
    -- The application refreshes views all day; that changes rows and nothing of the lock. CONCURRENTLY, as Mastodon does
    -- it, PostgreSQL itself gives three orders for that, about a temporary table of its own: known by their whole text,
    -- because they are not in pg_event_trigger_ddl_commands().
    GET DIAGNOSTICS doing = PG_CONTEXT;
    IF TG_TAG = 'REFRESH MATERIALIZED VIEW' OR doing ~ ('^[^\n]*\nSQL statement "(CREATE TEMP|ALTER|DROP) TABLE '
           'pg_temp_\d+\.pg_temp_\d+_2( \(tid pg_catalog\.tid\)| ADD COLUMN newdata pg_temp_\d+\.pg_temp_\d+'
           '|, pg_temp_\d+\.pg_temp_\d+)"(\n|$)')
       OR (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) THEN
        RETURN;
    END IF;
    SELECT string_agg(id, ', ') INTO broken FROM gov.structure() WHERE observed IS DISTINCT FROM expected;
    IF broken IS NOT NULL THEN
        RAISE 'The database lock refuses % by %: it would break %.', TG_TAG, session_user, broken
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'If the lock was broken before, run a deploy: it restores the lock.';
    END IF;
    PERFORM gov.follow_up();
END $$;

-- A migration may add the column require_2fa (4.6) or make a materialised view anew: both take part at once.
CREATE OR REPLACE FUNCTION gov.follow_up() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    view regclass;
BEGIN
    IF gov.setting_of('require_2fa') = 'true' THEN
        UPDATE public.user_roles r SET id = id  -- gov_roles_clamp does the rest
         WHERE to_jsonb(r) ->> 'require_2fa' = 'false';
    END IF;
    FOR view IN SELECT oid FROM pg_class WHERE relkind = 'm' AND relnamespace = 'public'::regnamespace
                   AND pg_get_userbyid(relowner) = 'mastodon_owner'
                   AND NOT has_table_privilege('mastodon', oid, 'MAINTAIN') LOOP
        EXECUTE format('GRANT SELECT, MAINTAIN ON %s TO mastodon', view);
    END LOOP;
END $$;
