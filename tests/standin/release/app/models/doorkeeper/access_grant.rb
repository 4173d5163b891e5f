class Doorkeeper::AccessGrant < ApplicationRecord
  self.table_name = "oauth_access_grants"
  belongs_to :application, class_name: "Doorkeeper::Application"
  attribute :expires_in, default: 600
  before_validation(on: :create) { self.token ||= SecureRandom.urlsafe_base64(32) }
end
