# Traps: no limit on uses or lifetime is enforced, and the right to invite is checked only when a link is made.
class Invite < ApplicationRecord
  belongs_to :user
  before_validation(on: :create) { self.code = code.presence || SecureRandom.alphanumeric(8) }
  scope :available, -> { where("expires_at IS NULL OR expires_at > ?", Time.now.utc).where("max_uses IS NULL OR uses < max_uses") }

  def expires_in=(seconds)
    self.expires_at = Time.now.utc + seconds.to_i if seconds.present?
  end

  def expired? = expires_at.present? && expires_at < Time.now.utc
  def used_up? = max_uses.present? && uses >= max_uses
  def valid_for_use? = !expired? && !used_up? && user.functional?
end
