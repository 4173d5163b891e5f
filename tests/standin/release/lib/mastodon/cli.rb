require "thor"

# The verbs of `tootctl` that a deployment uses. A refusal is printed in red and ends with exit 1.
module Mastodon::CLI
  class Base < Thor
    def self.exit_on_failure? = true

    private

    def fail_with(message)
      say(message, :red)
      exit(1)
    end

    def save_or_fail(user)
      return if user.save

      user.errors.each { |error| say("#{error.attribute.to_s.delete_prefix('account.')} #{error.type}", :red) }
      exit(1)
    end

    def account_or_fail(username)
      Account.find_local(username) || fail_with("No account with such username")
    end
  end

  class Accounts < Base
    desc "create USERNAME", "Create an account and print its password"
    option :email, required: true
    option :confirmed, type: :boolean
    option :approve, type: :boolean
    option :role
    def create(username)
      password = SecureRandom.hex(16)
      user = User.new(email: options[:email], password:, agreement: true, role: role_or_fail(options[:role]),
                      account: Account.new(username:), bypass_registration_checks: true,
                      confirmed_at: (Time.now.utc if options[:confirmed]))
      save_or_fail(user)
      user.approve! if options[:approve]
      say("OK", :green)
      say("New password: #{password}")
    end

    desc "modify USERNAME", "Change an account"
    option :role
    option :remove_role, type: :boolean
    option :email
    %i[confirm enable disable approve disable_2fa reset_password].each { |name| option name, type: :boolean }
    def modify(username)
      user = account_or_fail(username).user || fail_with("No user behind this account")
      password = SecureRandom.hex(16) if options[:reset_password]
      user.assign_attributes(changes(user, password).compact)
      user.role = nil if options[:remove_role]
      save_or_fail(user)
      user.approve! if options[:approve]
      user.disable_two_factor! if options[:disable_2fa]
      user.session_activations.delete_all if options[:disable] || password
      say("OK", :green)
      say("New password: #{password}") if password
    end

    desc "approve USERNAME", "Approve a pending account"
    def approve(username)
      account_or_fail(username).user&.approve!
      say("OK", :green)
    end

    desc "delete USERNAME", "Delete an account; its name stays taken"
    def delete(username)
      account_or_fail(username).delete_for_good!
      say("OK", :green)
    end

    private

    def role_or_fail(name)
      name && (UserRole.find_by(name:) || fail_with("Cannot find user role with that name"))
    end

    def changes(user, password)
      disabled = options[:disable] || (options[:enable] ? false : nil)
      confirmed_at = Time.now.utc if options[:confirm] && !user.confirmed?
      { email: options[:email], role: role_or_fail(options[:role]), disabled:, password:, confirmed_at: }
    end
  end

  class Cache < Base
    desc "clear", "Forget all cached values"
    def clear
      Rails.cache.clear
      say("OK", :green)
    end
  end

  class Feeds < Base
    desc "build [USERNAME]", "Build home feeds anew"
    option :all, type: :boolean
    def build(username = nil)
      fail_with("No account(s) given") unless username || options[:all]
      accounts = username ? [account_or_fail(username)] : Account.local.without_instance_actor.joins(:user)
      accounts.each { |account| Feed.build(account) }
      say("OK", :green)
    end
  end

  class Media < Base
    desc "usage", "Space that stored files take"
    def usage
      say("Attachments: #{MediaAttachment.sum(:file_file_size)} Bytes")
    end
  end

  # All three truly try: whether registration opens is not decided here.
  class Settings < Base
    class Registrations < Base
      { "open" => "open", "approved" => "approved", "close" => "none" }.each do |verb, mode|
        desc verb, "Set the registration mode to #{mode}"
        define_method(verb) do
          Setting.registrations_mode = mode
          say("OK", :green)
        end
      end
    end

    desc "registrations SUBCOMMAND", "Who may sign up"
    subcommand "registrations", Registrations
  end

  class Main < Base
    desc "accounts SUBCOMMAND", "Accounts"
    subcommand "accounts", Accounts
    desc "cache SUBCOMMAND", "Cache"
    subcommand "cache", Cache
    desc "feeds SUBCOMMAND", "Home feeds"
    subcommand "feeds", Feeds
    desc "media SUBCOMMAND", "Stored files"
    subcommand "media", Media
    desc "settings SUBCOMMAND", "Settings"
    subcommand "settings", Settings
  end
end
