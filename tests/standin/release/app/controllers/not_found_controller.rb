class NotFoundController < ApplicationController
  skip_forgery_protection

  def show = refuse(404, "The page you are looking for is not here")
end
