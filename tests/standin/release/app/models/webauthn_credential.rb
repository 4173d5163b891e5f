class WebauthnCredential < ApplicationRecord
  belongs_to :user
end
