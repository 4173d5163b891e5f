class Account < ApplicationRecord
  INSTANCE_ACTOR_ID = -99

  has_one :user, inverse_of: :account, dependent: :destroy
  has_many :statuses, dependent: :delete_all
  has_one :account_stat, dependent: :delete

  scope :local, -> { where(domain: nil) }
  scope :without_instance_actor, -> { where.not(id: INSTANCE_ACTOR_ID) }
  validates :username, presence: true, length: { maximum: 30 }, format: { with: /\A[a-z0-9_]+\z/i }, unless: :instance_actor?
  # The row of a deleted account stays, and with it its name is burnt.
  validates :username, uniqueness: { case_sensitive: false, scope: :domain }, if: :username_changed?
  before_create :generate_keys

  def self.find_local(username) = local.without_instance_actor.find_by("lower(username) = ?", username.to_s.downcase)

  def instance_actor? = id == INSTANCE_ACTOR_ID
  def suspended? = suspended_at.present?
  def stat = account_stat || create_account_stat!
  def acct = username
  def url = "https://#{Mastodon::Environment.web_domain}/@#{username}"
  def uri = "https://#{Mastodon::Environment.web_domain}/users/#{username}"

  # Content goes, the bare row remains.
  def delete_for_good!
    transaction do
      user&.destroy!
      statuses.delete_all
      update!(suspended_at: Time.now.utc, suspension_origin: 0, display_name: "", note: "")
    end
  end

  private

  def generate_keys
    key = OpenSSL::PKey::RSA.new(2048)
    self.private_key = key.to_pem
    self.public_key = key.public_key.to_pem
  end
end
