-- The lock in the database, part 4: what nobody may do to an official account by a click in its settings. Every
-- approved and confirmed account is official: this server has no others. The operator may do all of it.
-- What Mastodon does without them: reference/identity-and-records.md §0 and §4.

CREATE OR REPLACE FUNCTION gov.is_official(account bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM public.users WHERE account_id = account AND approved AND confirmed_at IS NOT NULL)
$$;

CREATE OR REPLACE FUNCTION gov.users_stay() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT gov.is_operator() AND OLD.approved AND OLD.confirmed_at IS NOT NULL THEN
        RAISE 'An official account is not deleted by a click: its posts are records. Ask the operator of this server.'
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN OLD;
END $$;

-- Deleting an account in its settings and suspending it both begin with this row; 30 days later everything is gone.
CREATE OR REPLACE FUNCTION gov.deletions_check() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT gov.is_operator() AND gov.is_official(NEW.account_id) THEN
        RAISE 'An official account is neither deleted nor suspended by a click: its posts are records. Freeze it, or '
              'ask the operator of this server.' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION gov.accounts_stay() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF gov.is_operator() OR NOT gov.is_official(NEW.id) THEN
        RETURN NULL;
    ELSIF NEW.moved_to_account_id IS NOT NULL AND NEW.moved_to_account_id IS DISTINCT FROM OLD.moved_to_account_id THEN
        RAISE 'An official account is not moved away by a click. Ask the operator of this server.'
            USING ERRCODE = 'check_violation';
    ELSIF NEW.suspended_at IS NOT NULL AND OLD.suspended_at IS NULL THEN
        RAISE 'An official account is not suspended: that would delete its records. Freeze it, or ask the operator of '
              'this server.' USING ERRCODE = 'check_violation';
    ELSIF NEW.domain IS NOT NULL AND OLD.domain IS NULL THEN
        RAISE 'An account of this server stays one.' USING ERRCODE = 'check_violation';
    ELSIF NEW.memorial AND NOT OLD.memorial THEN
        RAISE 'An official account is not made a memorial by a click: nobody could sign in to it any more. Freeze it, or '
              'ask the operator of this server.' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION gov.migrations_check() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT gov.is_operator() AND gov.is_official(NEW.account_id) THEN
        RAISE 'An official account is not moved away by a click. Ask the operator of this server.'
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION gov.cleanup_check() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.enabled AND NOT gov.is_operator() AND gov.is_official(NEW.account_id) THEN
        RAISE 'Old posts of an official account are not deleted automatically: they are records.'
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;

-- An identity of single sign-on opens an account without a password: only the operator ties one to a person. Unknown
-- people are stopped before, by gov_users_check, so that no half of an account stays behind.
CREATE OR REPLACE FUNCTION gov.identities_check() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT gov.is_operator() AND (TG_OP = 'INSERT' OR (OLD.provider, OLD.uid, OLD.user_id)
                                  IS DISTINCT FROM (NEW.provider, NEW.uid, NEW.user_id)) THEN
        RAISE 'No account is prepared for this identity: an operator must make it first.'
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;

-- Asked when the transaction ends: Mastodon writes an account first and its person after it. Without one, nobody was
-- invited. Mastodon's own actor (-99) has none, and Mastodon itself once gives it a newer name. Everybody else's name and
-- number are in the address of every post.
CREATE OR REPLACE FUNCTION gov.accounts_person() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF gov.is_operator() THEN
        RETURN NULL;
    ELSIF TG_OP = 'UPDATE' AND OLD.domain IS NULL AND (NEW.id, NEW.username) IS DISTINCT FROM (OLD.id, OLD.username)
          AND (OLD.id, NEW.id, NEW.username) <> (-99, -99, 'mastodon.internal') THEN
        RAISE 'An account of this server keeps its number and its name.' USING ERRCODE = 'check_violation';
    ELSIF NEW.id <> -99
       AND EXISTS (SELECT FROM public.accounts WHERE id = NEW.id AND domain IS NULL)
       AND NOT EXISTS (SELECT FROM public.users WHERE account_id = NEW.id) THEN
        RAISE 'An account of this server belongs to a person who was invited.' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
