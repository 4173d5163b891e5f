class User < ApplicationRecord
  EMAIL = /\A[^@\s]+@[^@\s]+\.[^@\s]+\z/

  belongs_to :account, inverse_of: :user
  belongs_to :role, class_name: "UserRole", optional: true
  # Trap: raising the counter is all that using an invite does; for whom the link was made, nobody asks.
  belongs_to :invite, optional: true, counter_cache: :uses
  has_many :invites, dependent: :delete_all
  has_many :session_activations, dependent: :delete_all
  has_many :webauthn_credentials, dependent: :delete_all
  accepts_nested_attributes_for :account

  encrypts :otp_secret
  attribute :agreement, :boolean, default: false
  attr_accessor :bypass_registration_checks, :filled_in_after
  attr_reader :password

  before_validation { self.email = email.strip.downcase if email }
  validates :email, presence: true, uniqueness: true, format: { with: EMAIL }
  validates :password, presence: true, on: :create
  validates :password, length: { in: 8..72 }, confirmation: true, allow_nil: true
  validates :agreement, acceptance: { accept: true }, on: :create, unless: :bypass_registration_checks
  validates_with EmailRules, if: :email_rules_apply?
  validate :name_not_reserved, on: :create, unless: :bypass_registration_checks
  validate :filled_in_by_a_person, on: :create
  before_create :set_approved
  before_create { self.confirmation_token ||= SecureRandom.urlsafe_base64(20) unless confirmed? }
  after_create_commit { confirmed? ? announce_pending : MailWorker.perform_async("confirmation", id) }

  def self.those_who_can(*rights)
    everyone = rights.any? { |right| UserRole.everyone.can?(right) }
    everyone ? all : where(role_id: UserRole.that_can(*rights).select(:id))
  end

  def password=(new_password)
    @password = new_password
    self.encrypted_password = BCrypt::Password.create(new_password, cost: 10) if new_password.present?
  end

  def password?(attempt) = encrypted_password.present? && BCrypt::Password.new(encrypted_password).is_password?(attempt.to_s)

  # A code is good once: the time step it belongs to is remembered.
  def otp?(attempt)
    at = otp_secret && ROTP::TOTP.new(otp_secret).verify(attempt.to_s, drift_behind: 30, drift_ahead: 30, after: consumed_timestep.to_i * 30)
    at ? update!(consumed_timestep: at / 30) : use_backup_code(attempt)
  end

  def confirmed? = confirmed_at.present?
  def can?(right) = (role || UserRole.everyone).can?(right)
  def valid_invitation? = invite.present? && invite.valid_for_use?
  def functional? = confirmed? && approved? && !disabled? && !account.suspended? && !missing_2fa?

  # Trap: the flag is not inherited, so that of "everyone" binds only users without a role.
  def missing_2fa?
    Mastodon::Environment.since_4_6? && (role || UserRole.everyone).require_2fa? &&
      !otp_required_for_login? && webauthn_credentials.none?
  end

  def self.digest(token) = OpenSSL::HMAC.hexdigest("SHA256", Rails.application.secret_key_base, token.to_s)

  # A new password ends what the old one began. Trap: a pending change of address lives on.
  def end_access!
    session_activations.delete_all
    Doorkeeper::AccessToken.where(resource_owner_id: id, revoked_at: nil).update_all(revoked_at: Time.now.utc)
  end

  def confirm!
    return update!(email: unconfirmed_email, unconfirmed_email: nil) if unconfirmed_email.present?
    return if confirmed?

    update!(confirmed_at: Time.now.utc)
    announce_pending
  end

  def approve!
    return if approved?

    update!(approved: true)
    MailWorker.perform_async("approved", id)
  end

  def disable_two_factor! = update!(otp_required_for_login: false, otp_secret: nil, otp_backup_codes: nil)

  private

  # Since 4.6 only an inviter with a right of its own spares the newcomer the review; before, any inviter did.
  def set_approved
    bypass = !Mastodon::Environment.since_4_6? || invite&.user&.can?(:invite_bypass_approval)
    self.approved = Setting.registrations_mode == "open" || (valid_invitation? && bypass)
  end

  def announce_pending
    MailWorker.perform_async("pending", id) unless approved?
  end

  def email_rules_apply?
    email_changed? && (!confirmed? || ENV["EMAIL_DOMAIN_LISTS_APPLY_AFTER_CONFIRMATION"] == "true")
  end

  def name_not_reserved
    errors.add(:username, :reserved) if account && UsernameBlock.matches?(account.username.to_s)
  end

  # The web form refuses what was filled in faster than a person can.
  def filled_in_by_a_person
    errors.add(:base, :too_soon, message: "Too fast, try again") if filled_in_after && filled_in_after < 3
  end

  def use_backup_code(attempt)
    hashed = otp_backup_codes.to_a.find { |code| BCrypt::Password.new(code).is_password?(attempt.to_s) }
    hashed && update!(otp_backup_codes: otp_backup_codes - [hashed])
  end
end
