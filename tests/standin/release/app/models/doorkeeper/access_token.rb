class Doorkeeper::AccessToken < ApplicationRecord
  self.table_name = "oauth_access_tokens"
  belongs_to :application, class_name: "Doorkeeper::Application", optional: true
  before_validation(on: :create) { self.token ||= SecureRandom.urlsafe_base64(32) }

  def self.usable(token)
    found = find_by(token:, revoked_at: nil)
    found unless found&.expires_in && found.created_at + found.expires_in < Time.now.utc
  end

  def user = resource_owner_id && User.find_by(id: resource_owner_id)
  # A scope covers its parts: "write" covers "write:statuses".
  def allows?(scope) = scopes.to_s.split.any? { |granted| "#{scope}:".start_with?("#{granted}:") }
end
